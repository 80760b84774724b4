"""What others would use instead of meshfd, each as a way to the server."""
