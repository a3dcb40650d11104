"""Where training data comes from: folders of files, tables of rows, archives of arrays, the cache."""
