"""The library: data in, data out. Knows neither Ray nor a command line."""
