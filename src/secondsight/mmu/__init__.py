"""Secondary MMUs: what registers as an MMU notifier."""
