-- Fills `ngx`. Code written for OpenResty requires this module by name, and so do some libraries.

require "resty.core.base"
require "resty.core.phase"
require "resty.core.log"
require "resty.core.time"
require "resty.core.var"
require "resty.core.ctx"
require "resty.core.exit"
require "resty.core.request"

return { version = require("resty.core.base").version }
