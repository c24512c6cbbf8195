"""A trace through the model: engine, TLB and walk costs, metrics."""
