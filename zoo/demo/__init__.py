"""`zoo demo`: every model in a page of the browser, by what its domain says of itself (`zoo.contract.page`)."""
