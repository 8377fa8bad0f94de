// In the place of the C library's, which g++ includes by itself: its macros must be the same without the headers of the host.
