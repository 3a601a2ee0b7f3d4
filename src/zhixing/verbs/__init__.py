"""What a person does with data and runs: one module a verb."""
