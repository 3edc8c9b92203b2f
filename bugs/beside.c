/* SPDX-License-Identifier: MIT */
/* Writes the squares of 0 to 9 into a file: ./bugs/beside FILE */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    int squares[10];
    if (argc != 2) errx(2, "usage: beside FILE");
    const int fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0666);
    if (fd == -1 || ftruncate(fd, sizeof squares) == -1) err(1, "%s", argv[1]);
    int *mapping = mmap(squares, sizeof squares, PROT_READ | PROT_WRITE,
                        MAP_SHARED, fd, 0);
    if (mapping == MAP_FAILED) err(1, "%s: mmap", argv[1]);
    for (int i = 0; i < 10; i++) squares[i] = i * i;
    if (msync(mapping, sizeof squares, MS_SYNC) == -1) err(1, "msync");
    return 0;
}
