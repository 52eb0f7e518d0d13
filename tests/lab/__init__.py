"""What tests share: users made for the run, bundles, and the `rt` command run as somebody."""
