def check_dependencies(): pass
