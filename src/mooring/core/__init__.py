"""The nouns every layer speaks: frozen values and the error tree. No I/O."""
