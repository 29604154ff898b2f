"""Parts of the fuzzer: sound input, the readers that are fed, damage, and the contract."""
