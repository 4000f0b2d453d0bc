"""Scripts that a person launches, and the few modules that they share."""
