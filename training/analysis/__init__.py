"""What an encoder has learnt of how its sounds were made."""
