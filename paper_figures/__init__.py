"""The paper's figures and tables, regenerated on our own ladder, each with a verdict computed from the numbers."""
