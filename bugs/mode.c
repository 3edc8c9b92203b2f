/* SPDX-License-Identifier: MIT */
/* Counts its own runs in a file: ./bugs/mode FILE */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

int main(int argc, char *argv[])
{
    if (argc != 2) errx(2, "usage: mode FILE");
    const int fd = open(argv[1], O_CREAT, 0666);
    if (fd == -1) err(1, "%s", argv[1]);
    posix_fallocate(fd, 0, sizeof(int));
    int *runs =
        mmap(NULL, sizeof *runs, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    *runs = *runs + 1;
    printf("This is run %d.\n", *runs);
    return 0;
}
