"""What is wrong with a study, found before anything runs."""
