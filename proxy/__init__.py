"""The proxy: takes an app's request, decides, forwards, counts, settles and records."""
