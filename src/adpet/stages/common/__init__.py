"""Tables, checks and network training shared by stages."""
