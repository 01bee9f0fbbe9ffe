"""What a study's YAML may say, what is wrong with it, and which classes are made from it."""
