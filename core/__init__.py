"""The functional core: nouns, state, the compiled step and the one loop. It imports no sibling."""
