"""What the tools share: command lines, configs, and checks of what they are given."""
