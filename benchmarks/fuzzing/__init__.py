"""What `benchmarks/fuzz.py` makes and tries: inputs that nobody sends by mistake, and what becomes of them."""
