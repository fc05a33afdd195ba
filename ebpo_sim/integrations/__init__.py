"""Adapters that put this project's methods into other trainers, one module a trainer: `trl`, `verl`.

Importing this package imports none of them; each module checks its own trainer's version when it is imported.
"""
