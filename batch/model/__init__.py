"""Training and evaluation: face shards in, a model bundle out. Knows neither Ray nor a command line."""
