"""A person looks at masks: the queue, what is shown of an object, the answers, and the local page around them."""
