/* SPDX-License-Identifier: MIT */
/* Prints the first character of a file, or an error: ./bugs/null FILE */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

int main(int argc, char *argv[])
{
    struct stat file;
    if (argc != 2) errx(2, "usage: null FILE");
    const int fd = open(argv[1], O_RDONLY);
    if (fd == -1) err(1, "%s", argv[1]);
    if (fstat(fd, &file) == -1) err(1, "%s", argv[1]);
    char *text = mmap(NULL, file.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (text == NULL) err(1, "%s: mmap", argv[1]);
    printf("The first character is %c.\n", text[0]);
    return 0;
}
