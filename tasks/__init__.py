"""What is to be solved: tasks with their environments, datasets, and the rules that a learner may know."""
