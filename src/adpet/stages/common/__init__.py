"""What several stages share: tables, checks, and the training of a network."""
