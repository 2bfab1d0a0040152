"""The protocols: one evaluator each, and what they compute with."""
