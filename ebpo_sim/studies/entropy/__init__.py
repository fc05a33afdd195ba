"""What a step does to the policy's entropy."""
