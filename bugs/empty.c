/* SPDX-License-Identifier: MIT */
/* Writes a greeting into a new file: ./bugs/empty FILE */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    if (argc != 2) errx(2, "usage: empty FILE");
    const int fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0666);
    if (fd == -1) err(1, "%s", argv[1]);
    char *text = mmap(NULL, 13, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (text == MAP_FAILED) err(1, "%s: mmap", argv[1]);
    memcpy(text, "hello, world\n", 13);
    close(fd);
    return 0;
}
