"""Traces as others recorded them, and any table with addresses, made into ours."""
