"""What benchmarks share. Not benchmarks themselves, so ``benchmarks/run`` does not list them."""
