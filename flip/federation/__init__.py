"""The backends that carry messages between coordinator and sites."""
