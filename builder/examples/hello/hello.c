/* Prints one line; exits with 0, or with the status given as its argument. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	puts("hello from a container");
	return argc > 1 ? atoi(argv[1]) : 0;
}
