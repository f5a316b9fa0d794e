"""Text out of documents that anybody may have sent, in a process that may die of them."""
