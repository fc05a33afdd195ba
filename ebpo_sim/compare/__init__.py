"""Methods compared: one plan, one way of tuning and of running, paired differences, one vocabulary of verdicts.

A host (a `plan.Runner`) runs one job; all else is here, for the chains' training study and for the language model.
"""
