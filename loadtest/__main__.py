"""`python -m loadtest`."""

if __name__ == "__main__":
    from loadtest.cli import main  # here, since each worker process imports this module anew

    main()
