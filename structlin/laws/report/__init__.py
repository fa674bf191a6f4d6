"""What the laws say: laws.json, the console, the page, curves."""
