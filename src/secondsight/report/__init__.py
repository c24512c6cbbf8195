"""Tables, heat maps and one self-contained page; takes results, imports no engine."""
