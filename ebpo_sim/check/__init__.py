"""The contract of estimators as laws that any estimator can be held to."""
