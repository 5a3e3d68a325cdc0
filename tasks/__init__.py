"""What is to be solved: tasks, batches, environments, and the rules a learner may know."""
