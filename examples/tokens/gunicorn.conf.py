# Two workers: the one that writes an answer is seldom the one to which its readers are connected.
workers = 2
threads = 8
