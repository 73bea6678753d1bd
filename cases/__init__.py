"""The shipped cases: each YAML file and the step file beside it."""
