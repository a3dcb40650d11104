# %% [markdown]
# # Proteins
#
# Backbones of small domains, what they are like, and a scaffold around a motif. It needs `pip install
# "diffusion-zoo[protein]"`.

# %% tags=["parameters"]
LENGTH, STEPS = 64, None

# %%
import zoo

model = zoo.load("protein/backbone-ddpm")
chains = model.sample(2, length=LENGTH, seed=0, steps=STEPS)
chains

# %% [markdown]
# A chain turns with the mouse: helices are red, strands blue.

# %%
chain = chains[0]
chain

# %%
chain.measures()

# %%
chain.ramachandran()

# %% [markdown]
# Sixteen residues of it are held as they are, turned and shifted as a whole; the chain around them is new.

# %%
motif = chains.save("out/chains")[0]
first, last = LENGTH // 3, LENGTH // 3 + 15
scaffolds = model.inpaint(motif=f"{motif}:A{first}-{last}", length=LENGTH + 16, n=2, seed=1, steps=STEPS)
scaffolds

# %% [markdown]
# Files for other tools: ideal bonds, as PDB or mmCIF. A sequence for the backbone comes from others, such as
# ProteinMPNN.

# %%
scaffolds[0].idealised().save("out/scaffold.pdb")
scaffolds[0].save("out/scaffold.cif")
