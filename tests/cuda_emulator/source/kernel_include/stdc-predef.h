// Replaces the C library's header, which g++ includes automatically, so that its macros do not depend on the host's headers.
