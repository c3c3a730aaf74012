"""The pages and the JSON API: a tornado service behind the Hub's login, which reads the store and asks the Hub."""
