"""The migrations, oldest first: v0001 and so on."""
