"""What if: policies and rules compared on recorded traces, one at a time or thousands; benefit, bloat and cost before one switches."""
