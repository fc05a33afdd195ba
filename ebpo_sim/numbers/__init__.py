"""Closed forms, moments and mixtures: plain arithmetic that every room above stands on."""
