"""Methods: which parts there are, and on which rung each can stand."""
